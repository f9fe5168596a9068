"""What people and machines are told: values of the model in, text or plain JSON out.

Everything here is pure. `status` must start within 150 ms, so nothing in this package imports pydantic, and rich stays in `live`.
"""
