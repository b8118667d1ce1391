"""Recording a desktop: what is stored, what never is, and when."""
