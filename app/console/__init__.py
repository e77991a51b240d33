"""The console: pages for the person who answers for search quality.

The pages are thin: their scripts call the public API as any client does, so the service has one road for every write.
What is here is what that API has not: the pages themselves, the files they load, the way in, the samples, the pictures
of model cards.
"""
