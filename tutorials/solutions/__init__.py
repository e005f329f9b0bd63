"""Solutions of the exercises, a file for each notebook; read them when the hints are used up.

The checks make the mistakes that have names in these texts: whoever changes a line here sees at
the next check which of a chapter's edits no longer fit it.
"""
