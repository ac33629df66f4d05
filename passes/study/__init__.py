"""What a model would come to under many choices: computed as tasks that stand alone, and shown."""
