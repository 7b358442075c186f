"""What an update is made of: candidates, their evidence, the memory, and what may be let go afterwards."""
