"""Components at the platform's edges: the gateway for incoming requests, and the proxies for outgoing connections."""
