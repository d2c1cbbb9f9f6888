"""What the files of a checkout say about its ports, databases and endpoints.

Nothing that is found is run. Each kind of file has a module that is pure, text in and evidence
out; `scan` reads the files, `proposal` makes a configuration of what they say.
"""
