"""What a compiled component is, and the ways to run one."""
