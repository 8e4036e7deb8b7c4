"""Rules files: TOML and YAML, checked and watched."""
