"""The command line: verbs for people, thin skins over the flows."""
