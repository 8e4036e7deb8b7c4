"""Frameworks whose requests carry CGI's environment: WSGI, Flask, Django and REST framework."""
