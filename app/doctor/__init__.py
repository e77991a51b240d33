"""What `adiabat doctor` looks at. It reads and never writes, and works whether or not a service runs."""
