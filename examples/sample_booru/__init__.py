"""A booru of drawn portraits: pictures whose tags are true by construction, and a server that lists them.

    python -m examples.sample_booru serve --port 8766 --posts 60

portraits.py decides what a post shows, easel.py has the artists' styles, drawing.py draws, booru.py and server.py
answer like Danbooru.
"""
