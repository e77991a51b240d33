"""The wire models: what the HTTP interface takes and answers. The routes and the Python client share them."""
