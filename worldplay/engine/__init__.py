"""The learned world as it is played: loading, passes, compiled code, cost."""
