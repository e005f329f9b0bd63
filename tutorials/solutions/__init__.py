"""Solutions of the exercises, a file for each notebook; read them when the hints are used up."""
