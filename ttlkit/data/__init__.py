"""Images and what holds them: files, photographs, collections, the samples that training draws, checks."""
