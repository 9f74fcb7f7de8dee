"""laadplein: the controller of a charging plaza. The decision is in `core`; the shell around it does the rest."""
