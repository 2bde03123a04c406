"""One small interface per plugin kind."""
