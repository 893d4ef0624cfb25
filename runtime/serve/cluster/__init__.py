"""The same application on Ray Serve: many replicas behind proxies that spread requests over them."""
