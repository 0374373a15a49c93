"""The soak: four gateways behind a load balancer for an hour, one of them replaced every minute. `python -m bench.soak`."""
