"""Click logs as flat arrays: read, cleaned, split, simulated, laid out in batches. No model."""
