"""Parts of a page, one file a subject. Each makes sections of what is known of a model, and none where nothing is."""
