"""From a Study to a SynthesisResult: device and memory plan, uncertainty, segmentation."""
