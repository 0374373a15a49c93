"""The decision point: pure functions from Facts and a Release to a Decision, and the permit that carries an Allow."""
