"""What monitoring reads, in Prometheus' text format."""
