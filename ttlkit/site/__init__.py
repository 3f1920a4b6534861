"""The site: the executed notebooks of a run and the student in the browser, as a folder that any host serves."""
