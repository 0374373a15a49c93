"""The crash laboratory: gateways are killed and paused at named points while they pay; then the tool's table is the judge."""
