"""What the service tells about itself: figures (`metrics`, `state`) and log records (`logs`, `trace`).

The parts that are watched know none of this: they call small observers that are given to them.
"""
