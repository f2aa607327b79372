"""What tracing refuses."""


class TraceError(RuntimeError):
    """A function does something that a program cannot say. The text names the kernel, the argument
    or the operator, and what to do instead."""
