# The JVM: its launcher compiles a program in memory and runs it.
java -Xshare:auto -Xmx256m --source 17 "$(dirname "$0")/Gallery.java"; echo "status $?"; java -XX:+PrintFlagsFinal -version 2>/dev/null | grep -c MaxHeapSize; java -Xint -version 2>&1 | grep -c Server; java none 2>&1 | head -n 1
