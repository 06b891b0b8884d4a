"""Make a torchvision classifier open-set: it learns some invented characters and rejects others.

python -m examples.own_classifier
"""

import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.transforms.functional import pil_to_tensor

from model.config import Preprocessing
from model.network import BareBackbone
from model.novelty import NoveltyDetector
from model.transform import prepare
from sharding.sources.characters import draw

PREPROCESSING = Preprocessing(image_size=32)


def images(classes: range, samples: range) -> tuple[Tensor, Tensor]:
    """N drawn characters, float32 (N, 3, 32, 32), and their classes, int64 (N,)."""
    drawings = [draw(0, "flat", class_, sample) for class_ in classes for sample in samples]
    prepared = [prepare(pil_to_tensor(drawing), PREPROCESSING) for drawing in drawings]
    return torch.stack(prepared), torch.tensor(classes).repeat_interleave(len(samples))


def main(steps: int = 150, num_classes: int = 10) -> tuple[Tensor, Tensor]:
    """The answers to N test images, int64 (N,), -1 for novel, and their classes, int64 (N,), of
    which those from ``num_classes`` on are novel."""
    torch.manual_seed(0)
    references, classes = images(range(num_classes), range(30))
    classifier = resnet18(num_classes=num_classes)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-3)
    for _ in range(steps):
        batch = torch.randint(len(references), (32,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(classifier(references[batch]), classes[batch]).backward()
        optimizer.step()

    # Shares its layers with the classifier, which the detector puts into evaluation mode
    backbone = nn.Sequential(*list(classifier.children())[:-1], nn.Flatten())
    detector = NoveltyDetector(BareBackbone(backbone, PREPROCESSING), evaluator="cosine")
    detector.fit(references, classes)
    detector.choose_threshold(images(range(num_classes), range(30, 40))[0], recall=0.95)

    tests, truth = images(range(2 * num_classes), range(40, 50))
    answers = classifier(tests).argmax(dim=1)
    answers[~detector.is_known(tests)] = -1

    known = truth < num_classes
    print(f"known images accepted: {(answers >= 0)[known].float().mean():.0%}")
    print(f"known images with the correct class: {(answers == truth)[known].float().mean():.0%}")
    print(f"novel images rejected: {(answers == -1)[~known].float().mean():.0%}")
    return answers, truth


if __name__ == "__main__":
    main()
