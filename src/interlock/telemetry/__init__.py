"""What operators see: metrics, spans and logs. The gate feeds it through a port and never waits for it."""
