"""The ground: frozen types, the error tree and pure metrics.

Knows the standard library and numpy; knows nothing of files, torch, databases, HTTP or schedules. Import from the
submodule that owns a name: `continual.domain.samples`, `.adapters`, `.drift`, `.metrics`, `.change_plan`, `.errors`.
"""
