"""The HTTP interface: one file per resource. Routes translate; they decide nothing and catch nothing."""
