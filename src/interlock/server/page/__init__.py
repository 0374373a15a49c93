"""The page that `interlock up` serves: live calls, open approvals, the stop button, a trace as a story."""
