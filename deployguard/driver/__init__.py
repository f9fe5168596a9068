"""The shell around the engine: observe, step, save, act. It knows ports only, never an adapter."""
