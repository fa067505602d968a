"""The features must be those of PyTorch: these run where it is installed."""

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

from torch import nn  # noqa: E402

from bdloss import models  # noqa: E402

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}


class BasicBlock(nn.Module):
    """As in torchvision, with its names, which are those of the published weights."""

    def __init__(self, channels, filters, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample = None
        if stride > 1:
            shortcut = nn.Conv2d(channels, filters, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(filters))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, number in enumerate(blocks, start=1):
            filters, stride = 32 * 2**stage, 1 if stage == 1 else 2
            first = BasicBlock(channels, filters, stride)
            others = [BasicBlock(filters, filters, 1) for _ in range(number - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(first, *others))
            channels = filters
        self.fc = nn.Linear(512, 1000)

    def forward(self, x):
        features = [torch.relu(self.bn1(self.conv1(x)))]
        x = nn.functional.max_pool2d(features[0], 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
            features.append(x)
        return features


def random_network(backbone):
    """A network whose batch norm has seen something, too."""
    torch.manual_seed(0)
    network = ResNet(BLOCKS[backbone]).eval()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight, norm.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (norm.bias, norm.running_mean):
                nn.init.normal_(tensor, 0.0, 0.2)
    return network


@pytest.mark.parametrize("backbone", list(BLOCKS))
def test_features_are_those_of_pytorch(backbone, tmp_path):
    network = random_network(backbone)
    path = tmp_path / "model.safetensors"
    safetensors_torch.save_file(network.state_dict(), path)
    model = models.build_model(backbone, encoder_weights=str(path))

    pixels = np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3))
    mean, deviation = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    scaled = ((pixels / 255 - mean) / deviation).astype("float32")
    with torch.no_grad():
        expected = network(torch.from_numpy(scaled.transpose(0, 3, 1, 2)))

    unet = next(part for part in model.layers if isinstance(part, keras.Model))
    names = ["conv1_relu"] + [
        f"conv{stage}_block{number}_out"
        for stage, number in enumerate(BLOCKS[backbone], start=2)
    ]
    encoder = keras.Model(unet.input, [unet.get_layer(name).output for name in names])
    scaled = keras.ops.convert_to_numpy(model.get_layer("scaling")(pixels))
    for found, tensor in zip(encoder.predict_on_batch(scaled), expected, strict=True):
        theirs = tensor.numpy().transpose(0, 2, 3, 1)
        assert theirs.std() > 0.1
        np.testing.assert_allclose(found, theirs, rtol=1e-4, atol=1e-4)
