"""One multimodal model composed of parts, and the anatomy of other people's models."""
