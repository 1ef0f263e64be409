"""Record the runs of LangChain and LangGraph as spans, with their outcome and the turn around them."""
