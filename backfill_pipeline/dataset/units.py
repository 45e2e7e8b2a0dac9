"""Units of points in two standards: QUDT names for Brick, symbols for Project Haystack.

Put here: the table of units and how a text is looked up in it. Keep out: kinds of points (`point_kinds.py`).
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit in both standards.

    Attributes:
        qudt: local name of the QUDT unit, such as `DEG_C`; None: QUDT has no such unit.
        haystack: symbol in Project Haystack's unit database, such as `°C`; None: it has no such unit.
    """

    qudt: str | None
    haystack: str | None


_UNITS = """
degrees-celsius                      DEG_C              °C
degrees-fahrenheit                   DEG_F              °F
degrees-kelvin                       K                  K
delta-degrees-fahrenheit             DEG_F              Δ°F
delta-degrees-kelvin                 K                  ΔK
percent                              PERCENT            %
percent-relative-humidity            PERCENT_RH         %RH
parts-per-million                    PPM                ppm
parts-per-billion                    PPB                ppb
grams-of-water-per-kilogram-dry-air  GM-PER-KiloGM      gH₂O/kgAir
micrograms-per-cubic-meter           MicroGM-PER-M3     µg/m³
pascals                              PA                 Pa
hectopascals                         HectoPA            hPa
kilopascals                          KiloPA             kPa
millibars                            MilliBAR           mbar
bars                                 BAR                bar
pounds-force-per-square-inch         PSI                psi
inches-of-water                      IN_H2O             inH₂O
inches-of-mercury                    IN_HG              inHg
millimeters-of-mercury               MilliM_HG          mmHg
watts                                W                  W
kilowatts                            KiloW              kW
megawatts                            MegaW              MW
horsepower                           HP                 hp
btus-per-hour                        BTU_IT-PER-HR      BTU/h
kilo-btus-per-hour                   KiloBTU_IT-PER-HR  kBTU/h
tons-refrigeration                   TON_FG             tonref
volt-amperes                         V-A                VA
kilovolt-amperes                     KiloV-A            kVA
megavolt-amperes                     MegaV-A            -
volt-amperes-reactive                V-A_Reactive       VAR
kilovolt-amperes-reactive            KiloV-A_Reactive   kVAR
megavolt-amperes-reactive            MegaV-A_Reactive   MVAR
watt-hours                           W-HR               Wh
kilowatt-hours                       KiloW-HR           kWh
megawatt-hours                       MegaW-HR           MWh
joules                               J                  J
kilojoules                           KiloJ              kJ
megajoules                           MegaJ              MJ
btus                                 BTU_IT             BTU
kilo-btus                            KiloBTU_IT         kBTU
therms                               THM_US             therm
ton-hours                            TON_FG-HR          tonrefh
volts                                V                  V
millivolts                           MilliV             mV
kilovolts                            KiloV              kV
amperes                              A                  A
milliamperes                         MilliA             mA
hertz                                HZ                 Hz
kilohertz                            KiloHZ             kHz
ohms                                 OHM                Ω
kilohms                              KiloOHM            kΩ
power-factor                         UNITLESS           pf
cubic-feet-per-minute                FT3-PER-MIN        cfm
cubic-meters-per-second              M3-PER-SEC         m³/s
cubic-meters-per-hour                M3-PER-HR          m³/h
liters-per-second                    L-PER-SEC          L/s
liters-per-minute                    L-PER-MIN          L/min
us-gallons-per-minute                GAL_US-PER-MIN     gal/min
kilograms-per-second                 KiloGM-PER-SEC     kg/s
cubic-meters                         M3                 m³
cubic-feet                           FT3                ft³
liters                               L                  L
us-gallons                           GAL_US             gal
kilograms                            KiloGM             kg
grams                                GM                 g
pounds-mass                          LB                 lb
meters                               M                  m
centimeters                          CentiM             cm
millimeters                          MilliM             mm
inches                               IN                 in
feet                                 FT                 ft
square-meters                        M2                 m²
square-feet                          FT2                ft²
meters-per-second                    M-PER-SEC          m/s
feet-per-minute                      FT-PER-MIN         ft/min
kilometers-per-hour                  KiloM-PER-HR       km/h
miles-per-hour                       MI-PER-HR          mph
revolutions-per-minute               REV-PER-MIN        rpm
degrees-angular                      DEG                deg
luxes                                LUX                lx
foot-candles                         FC                 fc
watts-per-square-meter               W-PER-M2           W/m²
kilojoules-per-kilogram              KiloJ-PER-KiloGM   kJ/kg
btus-per-pound                       BTU_IT-PER-LB      BTU/lb
milliseconds                         MilliSEC           ms
seconds                              SEC                s
minutes                              MIN                min
hours                                HR                 h
days                                 DAY                day
"""
"""BACnet's name of a unit (ASHRAE 135, clause 21), QUDT's local name, Project Haystack's symbol; `-` where none is."""

_OTHER_NAMES = {
    "celsius": "degrees-celsius",
    "fahrenheit": "degrees-fahrenheit",
    "kelvin": "degrees-kelvin",
    "kilobtus": "kilo-btus",
    "usgallon": "us-gallons",
    "gallons": "us-gallons",
    "gallonsperminute": "us-gallons-per-minute",
    "psi": "pounds-force-per-square-inch",
    "gpm": "us-gallons-per-minute",
    "degc": "degrees-celsius",
    "degf": "degrees-fahrenheit",
    "inwc": "inches-of-water",
}
_NO_UNIT = frozenset({"nounits", "unitless", "none"})


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9%/]", "", name.lower())


def _units() -> tuple[dict[str, Unit], dict[str, Unit]]:
    names, symbols = {}, {}
    for name, qudt, symbol in (line.split() for line in _UNITS.strip().splitlines()):
        unit = Unit(qudt, None if symbol == "-" else symbol)
        names[_squeezed(name)] = unit
        if unit.haystack:
            symbols[unit.haystack] = unit
    return names | {other: names[_squeezed(name)] for other, name in _OTHER_NAMES.items()}, symbols


_BY_NAME, _BY_SYMBOL = _units()


def unit_of(text: str | None) -> Unit | None:
    """The unit that a text names; None for no text and for a text that is in no table.

    Args:
        text: BACnet's name in any spelling (`degreesCelsius`, `degrees-celsius`), or a symbol as Haystack writes it.
    """
    if text is None:
        return None
    return _BY_SYMBOL.get(text.strip()) or _BY_NAME.get(_squeezed(text))


def has_no_unit(text: str | None) -> bool:
    """Whether a text states that the point has no unit, or there is no text."""
    return text is None or _squeezed(text) in _NO_UNIT
