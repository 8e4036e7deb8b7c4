"""The driven adapters: storages, buses, loggers, settings and files. One third-party library enters per module."""
