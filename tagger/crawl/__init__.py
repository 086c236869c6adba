"""Danbooru's posts into a dataset folder: what simple_dan_crawl.py is built of."""
