"""Many images through one model: decoding beside the model, results in order, in files that can be gone on with."""
