"""What the commands share: options, progress, a run's directory, tables, plots."""
