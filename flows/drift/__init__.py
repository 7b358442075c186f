"""Looks at what came: which samples, against what, what is said; and the same looks taken again at the past."""
