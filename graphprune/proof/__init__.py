"""Whether a rewrite was right: the pruned model beside the masked original."""
