"""The whole pipeline on drawings of its own, for newcomers and for CI: python -m examples.demo."""
