"""Files of records, whatever their format: JSON lines, JSON, CSV and Parquet, and from a record to a sample."""
