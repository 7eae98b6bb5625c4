# Runs PROGRAM, which draws into FOLDER, and compares with RECORDED: the same names, and files of about the same size
# (another compiler's rounding may move a level by one).
file(REMOVE_RECURSE ${FOLDER})
execute_process(COMMAND ${PROGRAM} ${FOLDER} RESULT_VARIABLE status)
file(GLOB drawn RELATIVE ${FOLDER} ${FOLDER}/*.png)
file(GLOB recorded RELATIVE ${RECORDED} ${RECORDED}/*.png)
list(FILTER recorded EXCLUDE REGEX "^(lesson|experiment)_")  # lessons draw those, a longer run these
if(NOT status EQUAL 0 OR NOT drawn STREQUAL recorded)
  message(FATAL_ERROR "${PROGRAM} drew \"${drawn}\", docs/pictures has \"${recorded}\"\n0 passed, 1 failed")
endif()
foreach(name ${drawn})
  file(SIZE ${FOLDER}/${name} new)
  file(SIZE ${RECORDED}/${name} old)
  math(EXPR difference "100 * (${new} - ${old}) / ${old}")
  if(difference GREATER 5 OR difference LESS -5)
    message(FATAL_ERROR "${name} is another picture now: draw docs/pictures again and look at it\n0 passed, 1 failed")
  endif()
endforeach()
message("1 passed, 0 failed")
