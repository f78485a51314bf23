"""256 plain words, one for each byte, no two of which differ in one letter: for fingerprints that people compare."""

from __future__ import annotations

TEXT = """
acorn album amber anchor ankle apple apron arrow atlas autumn badge bagel bamboo banana barley basil basket beacon
beaver bench berry bicycle biscuit bison blanket blossom bonnet bottle bracket bramble breeze bridge broom bucket
buffalo button cabin cactus camel candle canoe canyon carpet carrot castle cedar cello chalk chapel cherry chimney
chisel cider cinema circle clarinet clover cobalt coconut comet compass copper coral cotton cradle crayon cricket
crystal cushion cypress daffodil daisy dancer desert diamond dolphin dragon drawer drizzle drummer eagle earth easel
echo eclipse elbow elephant emerald engine envelope falcon farmer feather fennel fiddle flannel flute forest fossil
fountain fox galaxy gallery garden garlic gazelle ginger giraffe glacier goblet granite grape guitar hammer hammock
harbor harvest hazel hedge helmet heron hollow honey hornet hotel igloo indigo iris island ivory jacket jaguar jasmine
jewel jigsaw jungle kayak kettle kitchen kitten koala ladder lagoon lantern laurel lavender lemon leopard library
lilac lizard lobster lotus magnet mammoth mango maple marble marmot meadow melon mirror monkey mosaic muffin mustard
napkin needle nickel noodle nutmeg oasis ocean octopus olive onion opal orbit orchid otter oyster paddle palace panda
papaya peanut pebble pelican pencil pepper piano pigeon planet plum pony poppy potato prairie pumpkin puzzle pyramid
quartz quiver rabbit radish raven ribbon river robin rocket rudder saffron salmon sandal scarf school shadow shovel
silver sketch snail spider spruce squid summer sunset swan table tailor teapot thimble thunder tiger timber toffee
tomato trumpet tulip tunnel turnip turtle umbrella valley vanilla velvet violin walnut walrus whistle willow window
winter wolf yogurt zebra zipper
"""
WORDS = tuple(TEXT.split())
